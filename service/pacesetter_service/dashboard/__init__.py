"""The dashboard: pages for people, rendered by the server and updated live by one script."""
