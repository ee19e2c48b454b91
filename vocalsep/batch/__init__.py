"""Many recordings: plan them, separate each as a job (here, in processes or on Ray), and report."""
