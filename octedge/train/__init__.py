"""The workstation side: cohorts, sampling, candidate networks, training, selection. Needs torch (`octedge[train]`)."""
