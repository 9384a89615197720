"""How the mathematics above is computed: kernels by platform and size."""
