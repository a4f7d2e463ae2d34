"""The page's own rooms: its texts, its pictures as HTML, the report, and (with Streamlit) what is on the screen."""
