//! Jobs of every kind, run for real; their log goes to a controller that takes everything.
