"""Freezing, protecting and watching inside the Hugging Face Trainer."""
