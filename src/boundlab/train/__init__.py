"""Certified training: losses and schedules."""
