"""Those who act: the policy, the expert, and what they are compared with."""
