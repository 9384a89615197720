"""Gaussians in other libraries: one module for each, which nothing else imports.

Each needs its library, as in `pip install 'gaussjax[numpyro]'`.
"""
