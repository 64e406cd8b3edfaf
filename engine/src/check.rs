//! What would make a checkpoint fail, said beforehand and without stopping the application.
