import click
@click.command()
def cache() -> None:
    """stub"""
