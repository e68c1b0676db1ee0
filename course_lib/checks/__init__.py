"""The grading material, one file a chapter: probes, references, mutants. Imported by the judge only."""
