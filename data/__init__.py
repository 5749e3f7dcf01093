"""All that knows a file of pixels or latents: HDF5, MNIST's files, bouncing digits, pictures and GIFs."""
