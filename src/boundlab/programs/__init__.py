"""Networks as linear, conic and integer programs."""
