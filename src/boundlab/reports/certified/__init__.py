"""The report page of a certified data set: its answer in one file that can be handed on."""
