"""A task that leakdet_tf does not have, added from outside: which share of a picture is gas, one number a picture."""
