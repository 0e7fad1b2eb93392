"""Parts for unet_dist from outside: a network, a loss, a source, a metric and a course. Nothing of unet_dist is edited."""
