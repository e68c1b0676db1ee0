"""The grader: it runs answers in processes of their own, compares values itself, and names the mistake."""
