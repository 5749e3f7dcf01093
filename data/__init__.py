"""Files of pixels and latents: HDF5, MNIST, bouncing digits, films, pictures and GIFs."""
