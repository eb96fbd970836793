"""The engine: implicit im2col by one register-blocked micro-kernel. Nothing here validates."""
