"""The ablation: arms, their recorded runs, and what is compared."""
