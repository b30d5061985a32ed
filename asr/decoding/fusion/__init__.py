"""What a beam search fuses with the model's output: language model, vocabulary and hot words.

Four stages lead from files to the search. Each is made from the one before:

DecodingResources   The files that a user names, as read. Made by `DecodingResources.read`, once a command.
PreparedResources   The same for a tokenizer, without weights: symbols, lexicon tree, hot word automaton, ids
                    of words in the language model. Made by `prepare_resources`, once a `BeamDecoder`;
                    `with_config` shares them, so that tuning prepares once.
ScoreTables         The same with weights, as arrays that the compiled search reads. Made by `build_tables`,
                    once a `BeamConfig`.
SearchSetup         Tokenizer, config, prepared resources, score tables and pruning: all that the searches of
                    a decoder share. Made by `build_setup`, once a `BeamConfig`; every utterance reads it.
"""
