"""What several updates of one base share: from folders to a run folder."""
