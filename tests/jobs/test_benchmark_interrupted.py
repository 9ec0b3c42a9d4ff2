"""``benchmark`` and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_ctrl_c_ends_in_one_line(bundle: Path) -> None:
    whole = [sys.executable, "-m", "leakdet_tf.cli", "benchmark", str(bundle), "--threads", "1", "--runs", "300000"]
    # what a shell starts in the background ignores SIGINT, and so would this child
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **listening) as child:
        assert child.stderr is not None
        assert child.stderr.readline().startswith("round 1 of 3")
        os.killpg(child.pid, signal.SIGINT)
        try:
            _, rest = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 130
    assert rest.strip() == "interrupted"
