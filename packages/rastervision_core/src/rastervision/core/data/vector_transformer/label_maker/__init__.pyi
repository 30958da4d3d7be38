from .filter import create_filter as create_filter
