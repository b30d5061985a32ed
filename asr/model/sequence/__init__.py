"""Networks from symbols to symbols, such as letters to phones: encoder-decoders, and networks with CTC."""
