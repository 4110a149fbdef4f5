r"""Where DropMax's retain probabilities come to rest on easy examples.

With the cross-entropy's gradient at 0 and the logits free per example, the gradients of divergence,
entropy and auxiliary loss vanish at

.. math::
    a_t \sigma(a_t) = 1 \ \text{(target)}, \qquad
    \rho - q + \rho (1 - \rho) a = 0, \quad \sigma(r) + q (1 - q) r = 0, \quad q = \sigma(a + r)
    \ \text{(other classes)}

The figures below are the finite roots in double precision.

Source: derived from the objective of DropMax (NeurIPS 2018); its figure of retain probabilities
shows 0.781 and 0.225.
"""

#: Prior retain probability of the target.
TARGET_FIXED_POINT = 0.7821882942801999
#: Prior retain probability of every other class.
NON_TARGET_FIXED_POINT = 0.22525617888171268
#: Posterior retain probability of every other class.
POSTERIOR_FIXED_POINT = 0.00967780137003502
