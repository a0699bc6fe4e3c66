"""`python -m cifar_cnn` is the program `cifar-cnn`."""

from cifar_cnn.cli.main import main

if __name__ == "__main__":
    main()
