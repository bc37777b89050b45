"""The paper's own way (arXiv:2511.19910): DSUR and ADFT on whole photos, then layer 2 on top."""
