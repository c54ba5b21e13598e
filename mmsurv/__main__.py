"""``python -m mmsurv`` is ``mmsurv``."""

from mmsurv.cli import main

if __name__ == "__main__":
    main()
