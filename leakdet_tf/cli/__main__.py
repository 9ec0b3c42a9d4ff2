"""``python -m leakdet_tf.cli``."""

import sys

from leakdet_tf.cli import main

sys.exit(main())
