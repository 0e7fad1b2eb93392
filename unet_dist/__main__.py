"""`python -m unet_dist`: the command line."""

from unet_dist.cli import main

if __name__ == "__main__":
    main()
