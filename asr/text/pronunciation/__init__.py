"""Letters to sounds and back: the joint n-gram of graphones, and what all pronouncers have in common."""
