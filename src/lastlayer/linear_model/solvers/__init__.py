"""Solvers of :class:`lastlayer.linear_model.problem.SoftmaxProblem`."""
