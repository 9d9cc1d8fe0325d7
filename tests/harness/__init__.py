"""What tests of several rooms share: real processes in a temporary root."""
