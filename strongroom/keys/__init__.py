"""Keys on their way to a machine: JSON Web Keys, and the envelope that only one of them opens."""
