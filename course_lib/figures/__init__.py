"""The course's figures, one module a chapter, each function named for what it draws. `core` holds the card they are drawn on."""
