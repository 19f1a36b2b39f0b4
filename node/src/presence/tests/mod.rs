mod calls;
mod convergence;
mod directed;
mod world;
