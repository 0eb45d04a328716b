"""The dashboard: pages for people, drawn by the server and kept live by one script of ours."""
