"""The attacker's side: customise a model on photos, generate, and judge how much of a person shows.

Mathematics only; plans, resume and pages are the pipeline's. No weights of a person are ever
written: a fine-tuned model lives in memory for as long as its images take.
"""
