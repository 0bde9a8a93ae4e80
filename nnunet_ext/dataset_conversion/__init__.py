"""Downloads to nnU-Net's raw format: one engine, a reader per dataset, a format per kind of image."""
