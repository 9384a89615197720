"""How it is computed: kernels that the mathematics above does not know of."""
