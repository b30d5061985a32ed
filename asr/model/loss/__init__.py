"""What a recogniser is trained to minimise: CTC, and CTC-CRF with its denominator."""
