//! The user's APIs, their sources, validation and translation to the model.
