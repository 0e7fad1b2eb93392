"""Parts for unet_dist from outside, one kind in each module. Nothing of unet_dist is edited."""
