//! The agent against a controller on loopback that answers as the test says.
