"""What tests share: each module builds one kind of thing, and its name says which."""
