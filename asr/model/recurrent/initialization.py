"""How the weights of the cells are initialised."""

import torch
from torch import nn

from asr.model.recurrent.cells import Lstm, TorchCell
from asr.model.recurrent.unidirectional import UnidirectionalLayer


def initialize(layer: UnidirectionalLayer) -> None:
    """Initialise the weights in place.

    Recurrent weights are orthogonal for every gate, which keeps the norm of the gradient through time
    (Saxe et al. 2014), and so is a projection; input weights are Xavier-uniform for every gate (Glorot &
    Bengio 2010); biases and peepholes are 0, but the LSTM's forget gate starts at 1 so that it remembers at
    first (Gers et al. 2000; Jozefowicz et al. 2015).
    """
    with torch.no_grad():
        for gate in layer.weight_ih_l0.chunk(layer.gate_count):
            nn.init.xavier_uniform_(gate)
        for gate in layer.weight_hh_l0.chunk(layer.gate_count):
            nn.init.orthogonal_(gate)
        if isinstance(layer, TorchCell):
            nn.init.zeros_(layer.bias_ih_l0)
            nn.init.zeros_(layer.bias_hh_l0)
        if isinstance(layer, Lstm):
            nn.init.ones_(layer.bias_ih_l0.chunk(4)[1])  # input, forget, cell, output
            if layer.weight_hr_l0 is not None:
                nn.init.orthogonal_(layer.weight_hr_l0)
            if layer.peepholes is not None:
                nn.init.zeros_(layer.peepholes)
