"""Commands of `syncdiff-prep` beside preparation itself, which is in `pipeline/cli.py`."""
