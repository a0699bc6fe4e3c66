"""`python -m cifar_cnn` is the program `cifar-cnn`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path.pop(0)  # the current folder, where a file may be named like a library
    from cifar_cnn.cli.main import main

    main()
