"""`rapha`: the commands by which anybody checks what the others claim."""
