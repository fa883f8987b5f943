import click
@click.command()
def serve() -> None:
    """stub"""
