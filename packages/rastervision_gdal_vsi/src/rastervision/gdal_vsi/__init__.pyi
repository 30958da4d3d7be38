from .vsi_file_system import VsiFileSystem as VsiFileSystem
